"""What is done to a platform on AWS; a file has one verb.

Each looks first, acts, waits until it can be seen, and reads it back. Called again, also after its
caller died in the middle, it finds what was begun and waits for that, or changes nothing.
"""
