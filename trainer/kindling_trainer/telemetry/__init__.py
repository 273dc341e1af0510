"""What a run tells while it trains and after: progress, curves, utilisation, a report."""
