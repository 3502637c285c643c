"""Low frequencies with the amplitudes of the target's: a translation without training.

Source: Yang and Soatto, "FDA", CVPR 2020, arXiv 2004.05498, section 2.1.
"""

from torch import Tensor

from uda.augmentation.fourier import Window, swap_amplitude
from uda.translation.translators import Partners
from uda.utilities.errors import require


class AmplitudeTranslator:
    """`swap_amplitude` with an image of the target that is drawn for each image, resized to it.

    FDA draws anew in every step and clips nothing; a file holds one translation, and colors in
    [0, 1]: what lies outside is clipped.
    """

    method = "fourier"

    def __init__(
        self, partners: Partners, *, band: float = 0.01, window: Window = "asymmetric"
    ) -> None:
        """band: of the shorter side, above 0 and up to 0.5; InputError for another."""
        require(
            0 < band <= 0.5,
            f"--band {band:g}: allowed are shares above 0 and up to 0.5, the whole spectrum",
        )
        self.partners: Partners | None = partners
        self.band = band
        self.window: Window = window

    def __call__(self, image: Tensor, partner: Tensor | None) -> Tensor:
        """See `Translator`."""
        assert partner is not None, "each image has one"
        swapped = swap_amplitude(image[None], partner[None], band=self.band, window=self.window)
        return swapped[0].clamp(0, 1)

    def facts(self) -> dict[str, str]:
        """See `Translator`."""
        assert self.partners is not None, "it was given"
        return {"band": f"{self.band:g}", "window": self.window} | self.partners.facts()
