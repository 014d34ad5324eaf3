"""Where models come from: registries, Hugging Face, plain URLs. Hostile until proved otherwise."""
