"""The bench: a run is stamped once, a table is data, records are kept, promoted, verified and read."""
