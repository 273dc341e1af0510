"""How toxic a text is: the classifier, its built-in model, and nothing that learns one. Without torch and Ray."""
