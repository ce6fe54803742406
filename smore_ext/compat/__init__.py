"""Other people's source trees made fast. Nothing else in the package imports from here."""
