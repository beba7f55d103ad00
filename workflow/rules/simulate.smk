rule simulate:
    input:
        notebook="notebooks/1_simulate.ipynb",
        package=package("inference/batches.py", "stages/simulate.py", "figures"),
    output:
        chunk="results/{run}/datasets/chunk_{chunk}.npz",
        report="results/{run}/reports/simulate_{chunk}.json",
        figure=report(
            "results/{run}/figures/simulate_{chunk}.png",
            caption="../report/simulate.rst",
            category="1 simulate",
            labels={"model": "{run}", "chunk": "{chunk}"},
        ),
        notebook="results/{run}/notebooks/1_simulate_{chunk}.ipynb",
    log:
        notebook="results/{run}/logs/1_simulate_{chunk}.ipynb",
        text="results/{run}/logs/1_simulate_{chunk}.log",
    conda:
        "../../environment.yml"
    resources:
        kernels=1,
    params:
        model_id=model_of,
        settings=settings("simulate"),
    message:
        "{wildcards.run}: simulate chunk {wildcards.chunk}"
    shell:
        notebook("-p chunk {wildcards.chunk}")


rule example:
    input:
        script="workflow/scripts/example.py",
        package=package("inference/batches.py"),
    output:
        data="results/{run}/datasets/example.csv",
        meta="results/{run}/datasets/example.yaml",
    log:
        "results/{run}/logs/example.log",
    conda:
        "../../environment.yml"
    params:
        model_id=model_of,
        seed=config["seed"],
    message:
        "{wildcards.run}: simulate the example measurement"
    shell:
        "python workflow/scripts/example.py {params.model_id:q} {params.seed}"
        " {output.data:q} {output.meta:q} > {log:q} 2>&1"
