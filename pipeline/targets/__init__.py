"""What each place to run adds to the same DAG."""
