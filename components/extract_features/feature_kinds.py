"""The kinds of features that can be extracted, by name; what makes them is in `networks`."""

YOUTUBE8M, IMAGENET, RANDOM = "youtube8m", "imagenet", "random"
FEATURES = {
    YOUTUBE8M: "as in the releases of YouTube-8M: the Inception graph of 2015-12-05, VGGish, and "
    "the public PCA of each",
    IMAGENET: "Keras's Inception-v3 and VGGish, with PCAs that are fitted on the videos",
    RANDOM: "the same networks with random weights: for tests, of no meaning",
}
