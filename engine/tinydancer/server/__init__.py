"""The scan service: sockets, frames, workers, metrics."""
