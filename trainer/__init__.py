"""What knows the machine learning: records, layers, models, training, evaluation, export."""
