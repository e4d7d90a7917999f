"""A proxy before an OpenAI-compatible server that states and enforces a token budget for each request."""
