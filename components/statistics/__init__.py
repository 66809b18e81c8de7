"""Feature statistics of every record, with Beam."""
