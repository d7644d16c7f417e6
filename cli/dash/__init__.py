"""regionctl dash: all regions on one screen, live, and what can be done about them."""
