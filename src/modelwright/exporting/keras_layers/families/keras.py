"""A user's own model: as it was written, behind the codec's scaling."""

from __future__ import annotations

from modelwright.errors import ModelwrightError
from modelwright.exporting.keras_layers.families import Tensor
from modelwright.exporting.keras_layers.net import Net
from modelwright.models.keras import Own, own_model


def build(net: Net, model: Own, given: dict[str, Tensor]) -> Tensor:
    """Its own outputs, the last layer's nonlinearity included."""
    own = own_model(model.config, model)
    for tensor in model.state_dict(keep_vars=True).values():
        net.array(tensor)
    if "frames" in given:
        if not model.masks:
            names = sorted({type(s).__name__ for s in own.layers if not s.supports_masking})
            raise ModelwrightError(
                f"--to keras: {', '.join(names)} would read the padding of shorter rows; "
                "use layers that know masks"
            )
        return own(given["frames"], mask=given["seen"])
    return own(net.shaped(given["features"], *own.input_shape[1:]))
