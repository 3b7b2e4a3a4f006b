"""The whole run's configuration: composed, loaded, validated, overridden."""
