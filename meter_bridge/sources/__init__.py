"""Where readings come from: one file a source, all behind `base.Source`."""
