"""Notifications: mails about orders, and the events' way to object storage."""
