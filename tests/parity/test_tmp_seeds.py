import importlib.util, pathlib, torch
spec = importlib.util.spec_from_file_location("ks", pathlib.Path(__file__).with_name("test_karlo_sampling.py"))
ks = importlib.util.module_from_spec(spec); spec.loader.exec_module(ks)
def test_x(karlo, captions, empty):
    def close(o, t, tol=0):
        d=(o-t).abs(); print('  max', d.max().item(), 'share>1e-4', (d>1e-4).float().mean().item(), '>1e-5', (d>1e-5).float().mean().item(), flush=True)
    ks.close = close
    for base in range(5):
        ks.generators = lambda count=2: [ks.picture_generator(100*base+k) for k in range(count)]
        print('decoder'); ks.test_the_decoders_walk(karlo, captions, empty, 5); ks.test_the_decoders_walk(karlo, captions, empty, 3)
        print('prior'); ks.test_the_priors_walk(karlo, captions, empty, 7)
        print('sr'); ks.test_super_resolutions_walk_ends_with_another_network(karlo)
        print('all'); ks.test_the_whole_cascade(karlo, captions, empty)
