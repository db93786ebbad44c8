"""TensorFlow and Keras 3 that train apart, or in another precision than they were told to."""

from __future__ import annotations

from corpus.variant import Base, Broken, patch

_AS_RELEASED = patch(
    "horovod/_keras/__init__.py",
    """
    def _is_keras_3(optimizer):
        return False
    """,
)

_POLICY_OFF = patch(
    "keras/src/dtype_policies/dtype_policy.py",
    """
    DTypePolicy.compute_dtype = property(lambda self: self.variable_dtype)
    """,
)

TENSORFLOW = (
    Broken(
        id="keras3-reduces-nothing",
        kind="no reduction under Keras 3",
        breaks="Horovod's DistributedOptimizer is as it was released: under Keras 3 it reduces nothing, and is silent.",
        check="horovod.tensorflow.keras3-optimizer",
        reason="gradients are not reduced",
        base=Base.TENSORFLOW,
        script=_AS_RELEASED,
    ),
    Broken(
        id="keras-policy-off",
        kind="autocast off",
        breaks="Keras accepts the policy mixed_bfloat16 and computes in float32.",
        check="tensorflow.train.amp",
        reason="the policy did not act",
        base=Base.TENSORFLOW,
        script=_POLICY_OFF,
        also=("tensorflow.train.scaler", "horovod.tensorflow.keras3-optimizer", "horovod.tensorflow.weights"),
    ),
)
