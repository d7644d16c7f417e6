"""What to do about a symptom: Markdown files to be read and run, and `book`, which reads them."""
