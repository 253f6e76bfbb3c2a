"""Floor 3. What `correct --auto` decides, as pure functions of what was measured."""

from __future__ import annotations

from .repair import CLASSICAL

#: Methods that `--method` offers now.
METHODS = ("auto", "mlp", "vit", "vit-blind", "cnn", "prediction", *CLASSICAL)


#: Rows and columns of the parts in which nets repair a frame, and of what they see around them.
TILE, HALO = 2048, 32
#: Up to so many bad pixels a net looks only at their neighbourhoods, which fit into memory without parts.
WHOLE = 50_000


#: Damage rate from which the vit takes the place of the mlp, from whose estimates it begins. Its excess error is 0.98
#: of the mlp's at 40 to 70 %, 0.92 at 85 and 92 % (means of seven validation cameras, ``python models/train/rebuilds.py
#: --side 320``), for ten times the processor time.
VIT_FROM = 0.8
#: Damage rate up to which the prediction in several passes is better than plain least squares in X-Trans planes of
#: 512 x 512 pixels: its weights are fitted on good pixels that are held back, of which there are too few beyond it (and
#: at 70 % already in 384 x 384).
PREDICTED_UP_TO = 0.75


def choose(rate: float, mlp_up_to: float | None, vit: bool = True) -> str:
    """The repair method for one plane.

    Parameters
    ----------
    rate : float
        Bad pixels / pixels of the plane.
    mlp_up_to : float or None
        The greatest damage rate at which the shipped MLP's card shows that it
        beats least squares on the validation cameras; None where no model
        knows this CFA.
    vit : bool
        Whether the vit knows this CFA.

    Returns
    -------
    str
        A name of `METHODS`. Prediction and least squares fit weights for every tile
        position, for which large tiles (X-Trans) in small frames leave too few pixels;
        they then fall back to means and medians by themselves.
    """
    if vit and rate >= VIT_FROM:
        return "vit"
    if mlp_up_to is not None and 0 < rate <= mlp_up_to:
        return "mlp"
    if mlp_up_to is None and rate <= PREDICTED_UP_TO:
        return "prediction"
    return "least-squares"
