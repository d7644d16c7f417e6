"""Inventory: the product list, and the stock that orders take from it."""
