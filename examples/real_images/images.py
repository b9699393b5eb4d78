"""Write real images that ship with Python packages into a folder: ``python images.py FOLDER``.

``photographs/`` gets six photographs of scikit-image and scikit-learn as JPEG files; ``stereo/`` gets the left image of
a Middlebury stereo pair (Scharstein et al., GCPR 2014), with depth made from its measured disparity.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image


def write_photographs(folder: Path) -> None:
    """Six photographs, 427 to 640 pixels long, JPEG quality 90."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    pictures = {name: getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    pictures |= dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=90)


def write_stereo(folder: Path) -> None:
    """One frame with depth in millimetres: focal length * baseline / (disparity + offset of the principal points)."""
    import skimage.data

    focal, centre_x, centre_y, offset, baseline = 994.978, 311.193, 254.877, 31.086, 193.001
    left, _, disparity = skimage.data.stereo_motorcycle()
    known = np.isfinite(disparity) & (disparity > 0)
    depth = np.where(known, focal * baseline / (np.where(known, disparity, 1) + offset), 0)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(left).save(folder / "motorcycle.color.png")
    cv2.imwrite(str(folder / "motorcycle.depth.png"), depth.round().astype(np.uint16))
    (folder / "intrinsics.txt").write_text(f"{focal} {focal} {centre_x} {centre_y}\n")


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "real_images")
    write_photographs(target / "photographs")
    write_stereo(target / "stereo")
    print(target)
