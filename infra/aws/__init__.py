"""The same topology on AWS: what it is made of, a plan of it without an account, its costs."""
