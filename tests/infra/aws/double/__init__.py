"""A double of the Pulumi CLI for tests: its protocol is real, what it makes is not.

It lives here only, is put on a PATH by tests only, and says so on stdout. It proves that this
project speaks to the Automation API as it should; it proves nothing about AWS.
"""
