"""The tests of keyrelay. They mirror the modules; what spans modules is named for what it shows."""
