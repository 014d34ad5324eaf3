"""Text in and text out, the same for every local engine."""
