"""Orders: placed on the user's shard in one statement, events sent through an outbox."""
