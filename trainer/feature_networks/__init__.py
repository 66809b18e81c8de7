"""The networks that made the features of YouTube-8M: Inception-v3 for frames, VGGish for sound."""
