"""The surgeon: expert statistics, rankings, surgery, quantisation, validation."""
