"""What options of the commands allow, by name: `--help` shows it without importing torch.

Each of these is what a module further down says (tests/commands/test_choices.py compares them).
"""

from importlib import resources

PROTOCOLS = (
    "native", "half_input", "adaptsegnet", "fda", "mrnet", "single", "dacs", "daformer", "hrda",
    "segformer", "vfm_uda", "clothing_segmentation", "segmentron", "mmsegmentation",
)  # fmt: skip
INTERPOLATIONS = ("bicubic", "bilinear", "bilinear_no_antialias", "nearest")
PRECISIONS = ("float32", "bfloat16")
AVERAGES = ("probabilities", "logits")

SCORE_FORMATS = ("log", "segmentron", "mmseg", "markdown", "json", "csv")
CROSS_DOMAIN_FORMATS = ("log", "markdown", "json", "csv")
MEASURES = ("f1", "per_image_union_miou", "soft_batch")
BOUNDARY_RATIO = 0.005
SERVERS = ("cityscapes", "acdc", "dark_zurich")

# The rules of pseudo-labels, with their settings and their defaults; None: it has to be given.
RULES: dict[str, dict[str, float | int | None]] = {
    "fixed": {"threshold": None},
    "cbst": {"portion": 0.2},
    "quantile": {"quantile": 0.66, "cap": 0.9},
    "iast": {"start": 0.9, "alpha": 0.2, "beta": 0.9, "gamma": 8.0, "images": 2},
}

PICTURES = ("ids", "colors", "overlays", "confidence")
TEST_TIME_METHODS = ("batch-norm", "tent")
TEST_TIME_MODES = ("episodic", "continual")
TEST_TIME_RATE = 1e-4

SAFETENSORS = ".safetensors"  # what their names end in
FILE_FORMATS = ("onnx", "torch")
PIXELS = ("uint8", "float")
OUTPUTS = ("labels", "confidence", "logits")

MATCHES = ("image", "set")
WINDOWS = ("asymmetric", "symmetric")
PICTURE_FORMATS = ("png", "jpeg")

AUTO = "auto"
AUTOMATIC = ("batch-norm", "self-training")


def adaptation_methods() -> list[str]:
    """The methods that need no source: one for each file of uda/adaptation/methods."""
    files = resources.files("uda").joinpath("adaptation", "methods").iterdir()
    stems = (file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_"))
