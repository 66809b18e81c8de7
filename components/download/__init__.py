"""Find or make the shards and prove them in a manifest."""
