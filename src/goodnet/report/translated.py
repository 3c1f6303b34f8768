"""What a translation makes of clean images, as one picture: before, after, the mask, and what was caught."""

from torch import Tensor

from goodnet.report._drawing import Theme, blank, png

_MOST = 8  # images in a row


def translation_plot(clean: Tensor, stamped: Tensor, caught: Tensor, theme: Theme) -> bytes:
    """Rows of images as PNG: clean ones, the same with the learned trigger, where they differ, and caught ones.

    Args:
        clean, stamped: float (N, C, H, W) in [0, 1]; the first eight are shown.
        caught: float (M, C, H, W) in [0, 1], not the same images.
        theme: colors.
    """
    difference = (stamped - clean).abs().amax(1, keepdim=True)
    rows = {"clean": clean, "with the trigger": stamped, "difference": difference, "caught": caught}
    height, width = clean.shape[2:]
    columns = max(1, min(_MOST, len(clean)))
    figure = blank(theme, columns + 1.2, len(rows) * height / width + 0.2)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, image in zip(line, images.detach().float().cpu().clamp(0, 1), strict=False):
            shown = image if image.shape[0] == 3 else image.mean(0, keepdim=True).expand(3, -1, -1)
            axis.imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
        line[0].text(
            -0.1, 0.5, name, transform=line[0].transAxes, ha="right", va="center", color=theme.text, fontsize=9
        )
    return png(figure)
