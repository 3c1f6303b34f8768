"""What a service counts, for Prometheus; each service has a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and gauges; their names begin with ``goodnet_``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("goodnet_requests", "Requests by path and status.", ["path", "status"], registry=own)
        self.seconds = Histogram("goodnet_predict_seconds", "Time to answer /predict.", buckets=_SECONDS, registry=own)
        self.images = Counter("goodnet_images", "Judged images: answered or triggered.", ["outcome"], registry=own)
        self.batch = Histogram("goodnet_batch_images", "Images judged together.", buckets=_IMAGES, registry=own)
        self.waiting = Gauge("goodnet_requests_waiting", "Requests to /predict without an answer yet.", registry=own)
        self.quarantined = Gauge("goodnet_quarantine_images", "Pictures held, by mark.", ["mark"], registry=own)
        self.quarantine_bytes = Gauge("goodnet_quarantine_bytes", "What they weigh.", registry=own)
        self.lost = Counter("goodnet_quarantine_failures", "Triggered images that could not be kept.", registry=own)
        self.swaps = Counter("goodnet_model_swaps", "Models that were put in service.", registry=own)
        self.model = Gauge("goodnet_model_info", "The model in service.", ["version"], registry=own)
