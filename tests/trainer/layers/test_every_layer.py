"""What is true of every layer, checked of every layer: one table of cases, one set of tests.

A layer's own file checks its values against a reference or by hand.
"""

import dataclasses
import importlib
import inspect
import json
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from keras.ops import convert_to_numpy as to_numpy

from trainer import layers

B, T, D, C = 4, 5, 8, 6
FLOAT, CODES, BOOL, COUNT = "float32", "uint8", "bool", "int32"
NOT_IN_THE_CONFIGURATION = {"bias"}
"""The layers that take an initial bias say so: a loaded layer has its weights."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer and what it is called with.

    Attributes:
        layer: the class.
        inputs: (shape, dtype) of the first call argument, or a tuple of such.
        arguments: of the constructor.
        mask: name of the call argument that takes a mask bool [B,T], if one does.
        frames: whether axis 1 of the inputs is T.
        cancelled: paths of weights whose gradient is 0 by the definition of the layer.
    """

    layer: type
    inputs: tuple
    arguments: dict = dataclasses.field(default_factory=dict)
    mask: str = ""
    frames: bool = False
    cancelled: tuple = ()

    def make(self, dtype="float32", seed=11):
        """A built layer whose weights are none that an initialiser would have made."""
        layer = self.layer(**self.arguments, dtype=dtype)
        self.call(layer, *self.arrays())
        values = np.random.default_rng(seed)
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(values.uniform(0.5, 1.5, weight.shape))
            elif weight.trainable or weight.name == "moving_mean" or not layer.trainable:
                weight.assign(values.standard_normal(weight.shape) * 0.5)
        return layer

    def arrays(self, batch=B, frames=T, seed=5):
        """Inputs, and call arguments by name."""
        values = np.random.default_rng(seed)
        lengths = np.resize([frames, 1, frames - 1, 2], batch)

        def array(spec):
            shape, dtype = spec
            rest = (frames, *shape[2:]) if self.frames and shape[1:] else shape[1:]
            shape = (batch, *rest)
            if dtype == COUNT:
                return lengths.astype(dtype)
            if dtype == CODES:
                return values.integers(0, 256, shape, dtype=dtype)
            return values.standard_normal(shape).astype(dtype)

        inputs = tuple(map(array, self.leaves()))
        mask = np.arange(frames) < lengths[:, None]
        return self.structure(inputs), {self.mask: mask} if self.mask else {}

    def symbols(self):
        """Symbolic inputs whose batch and number of frames are open."""
        inputs = tuple(
            keras.Input((None, *shape[2:]) if self.frames and shape[1:] else shape[1:], dtype=dtype)
            for shape, dtype in self.leaves()
        )
        mask = {self.mask: keras.Input((None,), dtype=BOOL)} if self.mask else {}
        return self.structure(inputs), mask

    def leaves(self):
        return self.inputs if isinstance(self.inputs[0][0], tuple) else (self.inputs,)

    def structure(self, leaves):
        return leaves if isinstance(self.inputs[0][0], tuple) else leaves[0]

    def call(self, layer, inputs, keywords, training=False):
        if "training" in inspect.signature(layer.call).parameters:
            keywords = keywords | {"training": training}
        return layer(keras.tree.map_structure(ops.convert_to_tensor, inputs), **keywords)

    def model(self, layer):
        inputs, keywords = self.symbols()
        return keras.Model((inputs, keywords), layer(inputs, **keywords))

    @property
    def differentiable(self):
        return self.layer is not layers.FrameMask and FLOAT in (dtype for _, dtype in self.leaves())


FRAMES = {"inputs": ((B, T, D), FLOAT), "mask": "mask", "frames": True}
VECTORS = {"inputs": ((B, D), FLOAT)}
VLAD = {"cluster_size": 4, "batch_norm_momentum": 0.9}
FEATURES = {"mask": "frame_mask", "frames": True}
CASES = {
    "batch_norm": Case(
        layers.BatchNormalization, **FRAMES, arguments={"momentum": 0.9, "epsilon": 0.01}
    ),
    "gating": Case(
        layers.ContextGating, **VECTORS, arguments={"reduction": 2, "batch_norm_momentum": 0.9}
    ),
    # What is added to all frames, the batch norm after the product takes off.
    "dbof_max": Case(
        layers.DBoF, **FRAMES,
        arguments={"cluster_size": 7, "batch_norm_momentum": 0.9},
        cancelled=("input_norm/beta",),
    ),
    "dbof_average": Case(
        layers.DBoF, **FRAMES,
        arguments={"cluster_size": 7, "pooling": "average", "batch_norm_rows": "all"},
        cancelled=("input_norm/beta",),
    ),
    "mixture": Case(
        layers.DistilledMixture, (((B, 3, C), FLOAT), ((B, 3), FLOAT)),
        arguments={"weight": 0.5, "temperature": 3.0},
    ),
    "features_of_codes": Case(
        layers.FeatureNormalization, (((B, T, 1024), CODES), ((B, T, 128), CODES)), **FEATURES,
        arguments={"normalization": "reverse_whitening", "padding": "author"},
    ),
    "features_of_floats": Case(
        layers.FeatureNormalization, (((B, T, 5), FLOAT), ((B, T, 2), FLOAT)), **FEATURES,
        arguments={"normalization": "scaled_l2", "quantised": False},
    ),
    "frame_mask": Case(
        layers.FrameMask, (((B, T, D), CODES), ((B,), COUNT)), frames=True
    ),
    "masked_mean": Case(layers.MaskedMean, **FRAMES),
    "experts": Case(
        layers.MixtureOfExperts, **VECTORS,
        arguments={"num_classes": C, "num_mixtures": 3, "l2": 1e-3},
    ),
    "netvlad_valid": Case(layers.NetVLAD, **FRAMES, arguments=VLAD),
    "netvlad_all": Case(layers.NetVLAD, **FRAMES, arguments=VLAD | {"batch_norm_rows": "all"}),
    **{
        f"nextvlad_{form}_{rows}": Case(
            layers.NeXtVLAD, **FRAMES,
            arguments=VLAD | {
                "groups": 2, "expansion": 3, "form": form, "batch_norm_rows": rows,
            },
        )
        for form, rows in (
            ("auto", "valid"), ("direct", "all"), ("folded", "all"), ("fast", "valid"),
        )
    },
    **{
        f"folded_nextvlad_{form}": Case(
            layers.FoldedNeXtVLAD, **FRAMES,
            arguments={
                "cluster_size": 4, "groups": 2, "expansion": 3, "form": form, "most_frames": 50,
            },
        )
        for form in ("folded", "fast")
    },
    # One number for all scores: the softmax cancels it.
    "vertical_attention": Case(
        layers.VerticalAttention, **VECTORS,
        arguments={
            "num_classes": C, "class_verticals": [[0], [1], [0, 2], [2], [1, 2], [0]],
            "num_verticals": 3, "embedding_size": 2, "attention_size": 5, "l2": 1e-3,
        },
        cancelled=("score_bias",),
    ),
}  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
masked_case = pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.mask], ids=[n for n in CASES if CASES[n].mask]
)
in_both_modes = pytest.mark.parametrize("training", [False, True])


def parameters(layer):
    """The constructor's parameters by name, but for those that the configuration leaves out."""
    found = inspect.signature(layer.__init__).parameters.values()
    return {
        one.name: one
        for one in found
        if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"
        if one.name not in NOT_IN_THE_CONFIGURATION
    }


def assert_near(found, expected, tolerance=1e-5):
    """Whether all outputs agree, to `tolerance` of the largest value of each."""
    keras.tree.assert_same_structure(found, expected)
    leaves = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for pair in leaves:
        one, other = (to_numpy(ops.cast(value, "float64")) for value in pair)
        assert np.isfinite(one).all()
        scale = max(float(np.abs(other).max()), 1e-12)
        np.testing.assert_allclose(one / scale, other / scale, atol=tolerance)


def dtype_of(value):
    return keras.backend.standardize_dtype(value.dtype)


def test_every_layer_has_a_case():
    assert {case.layer.__name__ for case in CASES.values()} == set(layers.__all__)


def test_every_layer_of_the_package_is_public():
    found = set()
    for module in pkgutil.iter_modules(layers.__path__, "trainer.layers."):
        members = vars(importlib.import_module(module.name)).values()
        found |= {
            one.__name__
            for one in members
            if inspect.isclass(one) and issubclass(one, keras.Layer)
            if one.__module__ == module.name
        }
    assert found == set(layers.__all__)


@pytest.mark.parametrize("name", layers.__all__)
def test_every_layer_is_registered(name):
    layer = getattr(layers, name)
    assert keras.saving.get_registered_name(layer) == f"nextvlad>{name}"
    assert keras.saving.get_registered_object(f"nextvlad>{name}") is layer


@pytest.mark.parametrize("name", layers.__all__)
def test_the_cases_set_every_parameter_to_another_value_than_its_default(name):
    of_layer = [case.arguments for case in CASES.values() if case.layer.__name__ == name]
    for parameter in parameters(getattr(layers, name)).values():
        assert any(
            parameter.name in arguments and arguments[parameter.name] != parameter.default
            for arguments in of_layer
        ), parameter.name


@every_case
def test_the_configuration_is_complete(case):
    layer = case.layer(**case.arguments, name="its_name", dtype="mixed_bfloat16")
    config = layer.get_config()
    for name, parameter in parameters(case.layer).items():
        assert config[name] == case.arguments.get(name, parameter.default), name
    assert not NOT_IN_THE_CONFIGURATION & set(config)
    config = json.loads(json.dumps(config))
    again = case.layer.from_config(config)
    assert again.get_config() == layer.get_config()
    assert (again.name, again.dtype_policy) == ("its_name", layer.dtype_policy)


@every_case
def test_it_survives_saving(case, tmp_path):
    model = case.model(case.make())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one, same in zip(model.weights, loaded.weights, strict=True):
        assert one.path == same.path
        np.testing.assert_array_equal(one.numpy(), same.numpy())
    batch = case.arrays()
    assert_near(loaded(batch), model(batch), 0)


@in_both_modes
@every_case
def test_eager_symbolic_and_compiled_calls_agree(case, training):
    """With a batch and a number of frames that the graph leaves open."""
    layer = case.make()
    model = case.model(layer)
    signature = keras.tree.map_structure(
        lambda symbol: tf.TensorSpec(symbol.shape, symbol.dtype), case.symbols()
    )
    compiled = tf.function(
        lambda inputs, keywords: case.call(layer, inputs, keywords, training),
        input_signature=signature,
    )
    for batch, frames in ((B, T), (3, 7)):
        inputs, keywords = case.arrays(batch, frames)
        eager = case.call(layer, inputs, keywords, training)
        assert_near(model((inputs, keywords), training=training), eager)
        assert_near(compiled(inputs, keywords), eager)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float64"])
@every_case
def test_the_symbolic_output_has_the_shape_and_type_of_the_real_one(case, policy):
    layer = case.make(policy)
    inputs, keywords = case.symbols()
    promised = layer(inputs, **keywords)
    found = case.call(layer, *case.arrays())
    keras.tree.assert_same_structure(promised, found)
    for symbol, value in zip(keras.tree.flatten(promised), keras.tree.flatten(found), strict=True):
        assert symbol.shape[0] is None
        assert (T in value.shape[1:2]) == (None in symbol.shape[1:2])
        open_shape = [(B, T)[axis] if n is None else n for axis, n in enumerate(symbol.shape)]
        assert tuple(open_shape) == tuple(value.shape)
        assert dtype_of(symbol) == dtype_of(value)


def loss_of(case, layer, inputs, keywords):
    """The outputs in a fixed direction, and what the layer adds."""
    values = np.random.default_rng(3)
    outputs = keras.tree.flatten(case.call(layer, inputs, keywords, training=True))
    losses = [ops.cast(one, "float64") for one in layer.losses]
    for output in outputs:
        direction = ops.convert_to_tensor(values.standard_normal(output.shape))
        losses.append(ops.sum(ops.cast(output, "float64") * direction))
    return sum(losses)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case.make().trainable_weights]
)
def test_a_training_step_moves_every_weight_and_lowers_the_loss(name):
    case = CASES[name]
    layer = case.make("float64")

    @tf.function
    def train_step(inputs, keywords):
        with tf.GradientTape() as tape:
            loss = loss_of(case, layer, inputs, keywords)
        gradients = tape.gradient(loss, layer.trainable_weights)
        norm = tf.linalg.global_norm(gradients)
        for weight, gradient in zip(layer.trainable_weights, gradients, strict=True):
            weight.assign_sub(ops.cast(1e-3 / norm, weight.dtype) * gradient)
        return loss, gradients

    start = [weight.numpy() for weight in layer.trainable_weights]
    loss, gradients = train_step(*case.arrays())
    for weight, before, gradient in zip(layer.trainable_weights, start, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        if weight.path.endswith(case.cancelled or "none"):
            np.testing.assert_allclose(gradient, 0, atol=1e-10)
        else:
            assert np.abs(gradient).max() > 1e-6, weight.path
            assert np.abs(weight.numpy() - before).max() > 0, weight.path
    assert float(train_step(*case.arrays())[0]) < float(loss)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.differentiable])
def test_the_inputs_have_finite_gradients(name):
    case = CASES[name]
    layer = case.make()
    inputs, keywords = case.arrays()
    inputs = keras.tree.map_structure(tf.constant, inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = loss_of(case, layer, inputs, keywords)
    for gradient in keras.tree.flatten(tape.gradient(loss, inputs)):
        assert np.isfinite(gradient).all()
        assert np.abs(gradient).max() > 0


@in_both_modes
@pytest.mark.parametrize(
    ("policy", "tolerance"), [("mixed_bfloat16", 0.08), ("mixed_float16", 0.01)]
)
@every_case
def test_half_precision_stays_near(case, policy, tolerance, training):
    exact, half = case.make(), case.make(policy)
    half.set_weights(exact.get_weights())
    assert {dtype_of(variable) for variable in half.variables} <= {"float32"}
    batch = case.arrays()
    found = case.call(half, *batch, training)
    assert_near(found, case.call(exact, *batch, training), tolerance)
    for one, same in zip(half.weights, exact.weights, strict=True):
        assert dtype_of(one) == "float32"
        np.testing.assert_allclose(one.numpy(), same.numpy(), atol=tolerance)


@in_both_modes
@masked_case
def test_no_mask_is_a_mask_that_is_true_everywhere(case, training):
    layer = case.make()
    inputs, keywords = case.arrays()
    everywhere = {name: np.ones_like(mask) for name, mask in keywords.items()}
    assert_near(
        case.call(layer, inputs, {}, training), case.call(layer, inputs, everywhere, training)
    )


@in_both_modes
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.mask == "mask"])
def test_a_mask_that_the_inputs_carry_is_the_mask(name, training):
    case = CASES[name]
    layer = case.make()
    inputs, keywords = case.arrays()
    inputs = inputs * keywords["mask"][..., None]
    expected = case.call(layer, inputs, keywords, training)
    start = keras.Input((None, D))
    model = keras.Model(start, layer(keras.layers.Masking(0.0)(start)))
    assert_near(model(inputs, training=training), expected)


@masked_case
def test_masks_of_another_shape(case):
    layer = case.make()
    inputs, _ = case.arrays()
    for shape in ((B, 1), (B,), (B, T, 1)):
        with pytest.raises(ValueError, match="mask of shape"):
            case.call(layer, inputs, {case.mask: np.ones(shape, bool)}, training=True)
