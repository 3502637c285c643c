"""The first version of a TOML file that describes a data set, from a look at its folder."""
