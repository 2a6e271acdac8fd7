"""Values from outside, checked: YAML files, key=value overrides, errors of one line, the command line."""
