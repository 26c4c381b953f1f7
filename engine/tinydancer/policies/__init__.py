"""Which objective a decision serves: cost, latency, quality, or a blend."""
