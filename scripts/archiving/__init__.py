"""Model archives: checked before they are built, written whole or not at all, verified after."""
