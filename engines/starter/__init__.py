"""The starter model: a small chat model that ships in the package."""
