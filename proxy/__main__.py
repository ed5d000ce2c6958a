"""``python -m proxy``: the command without an installed script."""

if __name__ == "__main__":
    from proxy.process import memory

    memory.expect_start()
    from proxy.cli.main import main

    main(prog_name="keyrelay")
