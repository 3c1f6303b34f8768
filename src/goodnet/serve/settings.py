"""Every bound of a service, as a value."""

from dataclasses import dataclass

from goodnet.core.params import check_ranges, param


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a service allows; whatever is beyond it is refused, with 413, 422 or 429."""

    most_body: int = param(8 * 2**20, low=1024, doc="bytes of one request")
    most_images: int = param(64, low=1, doc="images of one request")
    most_pixels: int = param(16 * 10**6, low=1, doc="pixels of one image file, before it is resized")
    most_waiting: int = param(256, low=1, doc="requests that are read or wait for an answer; the next one gets 429")
    most_held: int = param(256 * 2**20, low=1024, doc="bytes of all of them together")
    batch: int = param(64, low=1, doc="images that are judged together, across requests")
    wait: float = param(0.005, low=0.0, high=1.0, doc="seconds that a batch waits for more images")
    timeout: float = param(30.0, low=0.1, doc="seconds for sending a request, and as many for its answer")

    def __post_init__(self) -> None:
        check_ranges(self)
