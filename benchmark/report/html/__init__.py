"""The report as one HTML file: no network, sortable, readable on a phone and without colour."""
