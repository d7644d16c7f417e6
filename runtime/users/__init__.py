"""Users: sharded by user id; e-mail addresses are unique over all shards."""
