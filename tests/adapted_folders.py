"""Output folders of adaptations, as `uda adapt` writes them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

EVIL = "<script>document.title='taken'</script>"
CLASSES = ["road", EVIL, "sky"]
IMAGES = ("a b.jpg", '"><img src=x onerror=alert(1)>', "c.jpg")


def values() -> dict[str, Any]:
    """A whole adapt.json: one stage kept, one not, and names that are markup."""
    criteria = {"agreement": 0.61, "entropy": 0.4, "unknown": None}
    return {
        "format": "uda adapt 1",
        "network": {
            "file": "city.pth", "sha256": "ab" * 32, "title": "DeepLabV3+ on ResNet-50",
            "classes": CLASSES, "palette": [[128, 64, 128], [255, 0, 0], [70, 130, 180]],
            "supervision": "none",
        },
        "images": {
            "folder": "my <photos>", "count": 403, "unreadable": {"x.jpg": "cut off"},
            "sizes": {"1280x720": 400, "640x360": 3}, "looked_at": 40,
        },
        "settings": {
            "methods": ["auto"], "minutes": 30, "seed": 0, "source": None,
            "command": "uda adapt --restore-from city.pth --images 'my <photos>'",
        },
        "stages": [
            {"name": "batch-norm", "did": "Statistics were measured again.", "steps": 40,
             "seconds": 12.3, "snapshot": "stage1.pth", "before": criteria,
             "after": criteria | {"agreement": 0.7, "entropy": 0.5}, "verdict": "better",
             "reasons": ["agreement rose by 0.09"], "kept": True},
            {"name": "self-training", "did": "It learned from itself.", "steps": 200,
             "seconds": 100, "snapshot": None, "before": criteria, "after": criteria,
             "verdict": "unclear", "reasons": [], "kept": False},
        ],
        "criteria": {
            "agreement": {"title": "agreement between views", "highest": True, "about": "IoU."},
            "entropy": {"title": "mean entropy", "highest": False, "about": "In nats."},
        },
        "outcome": "adapted", "why": ["agreement rose on 38 of 40 images"],
        "warnings": ["a class has nearly vanished"],
        "shares": {"old": [0.5, 0.25, 0.25], "new": [0.625, 0.0, 0.375]},
        "scores": {
            "dataset": "city", "protocol": "native on city val",
            "old": {"miou": 41.25, "ious": {"road": 80.0, EVIL: None}},
            "new": {"miou": 43.5, "ious": {"road": 82.0, EVIL: None}},
        },
        "pictures": [
            {"image": name, "changed": (index + 1) / 10} | {
                kind: f"comparison/{index}{end}"
                for kind, end in {"photo": ".jpg", "before": ".before.jpg",
                                  "after": ".after.jpg"}.items()
            }
            for index, name in enumerate(IMAGES)
        ],
        "undo": "Nothing was changed in place: uda predict --restore-from city.pth",
    }  # fmt: skip


def written(folder: Path, **changes: object) -> Path:
    """An output folder with its pictures, whose adapt.json has `changes`."""
    found = values() | changes
    (folder / "comparison").mkdir(parents=True)
    colors = {"photo": "gray", "before": "red", "after": "blue"}
    for picture in values()["pictures"]:
        for kind, color in colors.items():
            Image.new("RGB", (120, 60), color).save(folder / picture[kind])
    (folder / "adapt.json").write_text(json.dumps(found))
    return folder
