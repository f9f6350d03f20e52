# Each target is one call of the workbench (crates/lab), which does whatever set-up is missing.
#   make lab            JupyterLab on the notebooks       make lab PORT=8890   on that port
#   make lesson         every notebook, without a browser
#   make test           the tests
#   make test-long      what takes longer: slow tests, every cell twice, every notebook in the browser
#   make class          a JupyterHub for a class       make class HOST=0.0.0.0 PORT=8000 (TRUST=1)
#   make site           the saved notebooks as pages that need no network
#   make slides         the same as slides, one page for each notebook
#   make bench          the measurements              make bench PEERS=1 QUICK=1 ONLY="NAME …"
#                       beside another commit         make bench AGAINST=COMMIT ROUNDS=15
#   make doctor         what is there, what is missing, and the fix
#   make clean          removes what was built here, never a notebook

ifeq ($(filter clean,$(MAKECMDGOALS))$(shell command -v cargo),)
$(error Rust is missing: install it with rustup, or use the conda environment of environment.yml)
endif

LAB = cargo run --package lab --

.PHONY: lab class lesson site slides test test-long bench setup doctor clean

lab: setup
	@$(LAB) jupyter $(if $(PORT),--port $(PORT))

class: setup
	@$(LAB) class $(if $(PORT),--port $(PORT)) $(if $(HOST),--host $(HOST)) $(if $(TRUST),--trust)

lesson: setup
	@$(LAB) run

site: setup
	@$(LAB) site

slides: setup
	@$(LAB) slides

test: setup
	@$(LAB) test

test-long: setup
	@$(LAB) test --long

bench: setup
	@$(LAB) bench $(if $(PEERS),--peers) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(AGAINST),--against $(AGAINST)) $(if $(ROUNDS),--rounds $(ROUNDS))

setup:
	@$(LAB) setup

doctor:
	@$(LAB) doctor

clean:
	rm -rf target
