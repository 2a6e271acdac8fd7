"""What the Hugging Face Trainer does not offer a callback."""
