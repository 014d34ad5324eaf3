"""The admin dialect: for those who run a gateway, in OpenAI's error shape."""
