"""The command line: `pint` and the options that the apps share."""
