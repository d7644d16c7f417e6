"""Payments: charged and refunded at the payment gateway, recorded on the user's shard."""
