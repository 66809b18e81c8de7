"""Raw videos to YouTube-8M records: decoding, features, projection, shards."""
