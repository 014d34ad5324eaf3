"""Model files on disk: names, digests, manifests, and the folders that hold them."""
