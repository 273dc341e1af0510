"""Messages, and the templates that make text of them."""
